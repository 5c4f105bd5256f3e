"""`penstock score`: scores files, with a checkpoint beside the output.

command       the flags, and how a run begins and ends
local         a server in this process, for --model
watching      what is said of a run, and signals
bar, times    the progress on a terminal
"""
