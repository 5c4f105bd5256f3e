"""REST: JSON over HTTP. Plain records, columns and streams; and the Open Inference Protocol's REST form."""
