"""The contract as the shell reads it: methods, kinds of resources, rules on fields, texts.

Read off the generated descriptors, so that no name and no rule stands here a second time.
"""
