"""What validate.py reports beyond the accuracy: classes, confusions, mistakes, and a file of predictions."""
