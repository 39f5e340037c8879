"""One module per backend; `fastbts.engine.load` has the table."""
