"""Online identity reconciliation: which customer is this?"""

__version__ = "0.1.0"
