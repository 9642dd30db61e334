"""Every port and well-known address inside the stack, named once.

Service names are container aliases on the stack's networks; they are those of Dify's own compose file,
so that Dify's defaults keep working.
"""

API = 5001
WEB = 3000
PLUGIN_DAEMON = 5002
PLUGIN_DAEMON_DEBUG = 5003
LOCAL_SANDBOX = 5004
AGENT_BACKEND = 5050
SANDBOX = 8194
SQUID = 3128
POSTGRES = 5432
REDIS = 6379
WEAVIATE = 8080
WEAVIATE_GRPC = 50051
QDRANT = 6333
# Where the stream proxies pass connections to an external vector store: its main port, and the second one of Weaviate.
# Others than that of PostgreSQL, which may be external at the same time.
VECTOR_SERVER = 9201
VECTOR_SERVER_GRPC = 9202

# The OAuth service: what the world reaches through nginx, and what nginx alone does.
GATEWAY = 8090
GATEWAY_INTERNAL = 8091

# LiteLLM's proxy, for nginx alone.
LITELLM = 4000

# Inside the edge container nginx runs without root, so it listens above 1024.
EDGE_HTTP = 8080
EDGE_HTTPS = 8443
# Instead of these two, where a load balancer sends the PROXY protocol. Others of the stack use the plain ones.
EDGE_PROXIED_HTTP = 8086
EDGE_PROXIED_HTTPS = 8087
# The LLM proxy for the stack's own services; never published.
EDGE_LLM = 8082
# For health checks from inside its own container.
EDGE_STATUS = 8081
# Where a solver of cert-manager answers the HTTP challenges of a CA.
ACME_SOLVER = 8089
# Where several replicas of the edge count as one. Replicas alone connect to it.
EDGE_RING = 8083
# The owner of the LLM proxy's counts, for requests of clients and for those from inside the stack. Pods of nginx alone
# connect to it.
EDGE_OWNER = 8084
EDGE_OWNER_INSIDE = 8085
EDGE = (EDGE_HTTP, EDGE_HTTPS, EDGE_LLM, EDGE_STATUS, EDGE_PROXIED_HTTP, EDGE_PROXIED_HTTPS)
