"""A server that answers like OpenAI's, with the model, the decoding methods, searches and cache policies of etude: `etude serve MODEL`.

settings    address, limits
protocol    requests of the interface; errors: how they are told
options     decoding, search, thought and kv_cache: the settings of a request that are etude's own
aliases     names of models that choose some of them
asking      a request → what it asks of its answers, within the limits
scheduler   the thread of the engine: requests that are decoded together, and jobs that run alone
model       what is served: how a prompt is answered
answers     a request's choices, as they come from that thread
server      requests → prompts → choices; logprobs, stream: how they are written
app         the routes; metrics: their counts
"""
