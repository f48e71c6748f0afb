"""A server that answers like OpenAI's, with the model, the decoding methods and the cache policies of etude: `etude serve MODEL`.

settings    address, limits
protocol    requests of the interface; errors: how they are told
aliases     names of models that choose a method of decoding or a cache policy
scheduler   the thread of the engine: requests that are decoded together, and jobs that run alone
model       what is served: how a prompt is answered
answers     a request's choices, as they come from that thread
server      requests → prompts → choices; logprobs, stream: how they are written
app         the routes; metrics: their counts
"""
