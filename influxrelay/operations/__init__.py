"""What operators and monitors see and do."""
