# Not Python.
def (:
