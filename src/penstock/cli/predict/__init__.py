"""`penstock predict`: predictions for one row from the command line, or for a whole file.

command               the flags, and a prediction for values from the command line
printing              one prediction as a table or as JSON
files                 opens the files of --file, and shows the progress
scoring               the rows of a file, many in a request, by `penstock.scoring`
streaming             the steps of a sequence, one by one, and their answers in the same order
"""
