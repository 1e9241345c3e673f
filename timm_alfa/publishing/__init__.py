"""From a finished run folder to a repository on the Hugging Face Hub, with its model card."""
