"""A server that answers like OpenAI's, with the model, the decoding methods and the cache policies of etude: `etude serve MODEL`.

settings    address, limits
protocol    requests and replies of the interface
aliases     names of models that choose a method of decoding or a cache policy
scheduler   the thread of the engine: requests that are decoded together, and jobs that run alone
answers     a request's prompts → choices, as text and log-probs
app         the routes
"""
