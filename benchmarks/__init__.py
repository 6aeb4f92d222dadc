"""One module a question.

Each prints figures as ratios against a named peer or limit, measured in the same run.
"""
