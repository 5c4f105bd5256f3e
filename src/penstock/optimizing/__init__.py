"""Makes smaller or faster variants of a model, and compares each with the original before it is kept.

source       the version that is optimised, and the real rows it is compared on
variants     what can be made of it: ONNX Runtime's own optimiser, float16 and int8
measuring    answers, differences and times of a loaded variant
golden       the golden rows that a variant gets
verdicts     what is reported of each variant, and whether it may take the original's place
writing      a variant as a new version
"""
