"""A model of lm-evaluation-harness: its tasks measure etude's decoding methods, searches, thoughts and cache policies.

settings      what --model_args takes
likelihoods   log-likelihoods of given continuations
generation    generation_kwargs of a task → how etude answers
adapter       the harness's class of models
__main__      `python -m etude.lm_eval`: the harness's own command, which then knows --model etude
"""
