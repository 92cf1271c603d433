"""
What is in trees of files that do not change: read, and known by its digest; compared, checked,
sent and received. It is all done by processes of their own, C{python -m hoody.manifests}.
"""
