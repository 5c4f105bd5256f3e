"""Scores files: many rows a request, in the order of the input, with a checkpoint beside the output.

sources               what to read: paths, patterns and addresses
text_files            chunks of CSV, TSV and JSON Lines
arrow_files           chunks of Parquet and Arrow, and files of these as output; the only user of pyarrow
sending               one chunk through the model: waits, retries, and finds the rows that are to blame
outputs, writers      answers as columns, and rows with their answers as text
sinks                 the files that are written, which can be continued where a checkpoint says
files                 the names of these, the lock, and what a run may replace
one_model             whether the server still has the model of the beginning
checkpoint            how far a run has come
run                   reads, sends and writes at the same time
"""
