"""What is tried of a model when it is loaded: whether rows mix, what runs cost."""
