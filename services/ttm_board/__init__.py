"""The live board of the ticket system: who is suspended, who was overdue, are the connectors well.

`python -m services.ttm_board` serves it; pages are made here and pushed to browsers when they change.
"""
