"""What train.py and validate.py are made of: options, loop, states, record."""
