"""Models: on disk (`repository`), one loaded version (`model`) and its check, all of them (`registry`)."""
