"""The load tool behind `penstock bench`: what it sends, how it paces it, and what it makes of the answers.

It knows servers from the outside only, by the client and the protocols: any server of `penstock.v1` or of
the Open Inference Protocol will do. Downwards:

fleet → worker → pacing → calls → codecs → payloads, and all of them fill a tally of histograms, of which
`results` makes figures; `report`, `charts` and `plot` show these.
"""
