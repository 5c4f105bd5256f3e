"""What each operator does to rows, by family; `penstock.models.analysis.table` puts them together."""
