"""`penstock.v1`: PredictionService and ModelService."""
