"""The load tool behind `penstock bench`: makes load, measures the answers, and reports the results.

It uses only the client and the protocols, so it works with every server of `penstock.v1` or of the Open
Inference Protocol. The modules, from top to bottom:

fleet → worker → pacing → calls → codecs → payloads, and all of them fill a tally of histograms, of which
`results` makes figures; `report`, `charts` and `plot` show these.
"""
