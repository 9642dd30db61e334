"""How capacity grows with the number of replicas: measured, fitted, predicted, and planned from."""
