"""The page that the operations port shows: its file, its live figures and the recent errors."""
