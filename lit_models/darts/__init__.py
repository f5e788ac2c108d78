"""DARTS: architecture search (``search.py``) and training of what it found (``retrain.py``)."""
