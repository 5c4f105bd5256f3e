"""`penstock predict`: predictions for one row from the command line, or for a whole file.

command               the flags, and a prediction for values from the command line
inputs, outputs       values of a model's inputs and outputs, as users read and write them
printing              one prediction as a table or as JSON
files                 opens the files of --file, and shows the progress
readers, writers      rows of CSV and JSON Lines
streaming             sends the rows of a file, and writes the answers in the same order
"""
