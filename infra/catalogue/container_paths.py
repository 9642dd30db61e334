"""Paths and users inside the containers that more than one module must know."""

# nginx and certbot run as the same user, so that no other one reads the private keys.
EDGE_UID = 101
API_UID = 1001
REDIS_UID = 999
SQUID_UID = 13
GATEWAY_UID = 1002
LITELLM_UID = 1003

POSTGRES_DATA = "/var/lib/postgresql/data"
POSTGRES_PASSWORD_FILE = "/run/secrets/postgres_password"  # noqa: S105  # a path
REDIS_CONFIG = "/etc/redis/redis.conf"
REDIS_PASSWORD_FILE = "/etc/redis/password"  # noqa: S105  # a path
# The roots that an external database and an external Redis are verified with.
DATABASE_CA_FILE = "/etc/dify-kit/database-ca.pem"
REDIS_CA_FILE = "/etc/dify-kit/redis-ca.pem"
VECTOR_CA_FILE = "/etc/dify-kit/vector-ca.pem"
STREAM_PROXY_CONFIG = "/etc/dify-kit/stream-proxy.conf"
SQUID_CONFIG = "/etc/squid/squid.conf"
# Written by the container itself, for its own user alone: it holds the password of a proxy.
SQUID_PARENT_FILE = "/tmp/parent.conf"  # noqa: S108  # the container's own
# What programs trust with dify:outbound.caFile: the public authorities and the CA of the setting.
ROOTS_FILE = "/etc/dify-kit/roots.pem"
CELERY_HEALTH_SCRIPT = "/opt/dify-kit/celery_health.py"

# The volume of nginx's configuration, and on it the volume of the LLM proxy's token counts.
EDGE_DIRECTORY = "/etc/dify-kit/nginx"
USAGE_DIRECTORY = f"{EDGE_DIRECTORY}/usage"
# Sockets, the process id, the mark of a drain and what the gateway answered about tokens, on a tmpfs.
EDGE_RUN_DIRECTORY = "/run/edge"
EDGE_RUN_MEGABYTES = 64

CERTIFICATES_SCRIPT = "/opt/dify-kit/certificates.py"
# certbot's own directory: the ACME account and the certificates.
LINEAGES = "/etc/letsencrypt"
# What nginx reads of them: <PUBLISHED>/current -> <PUBLISHED>/<serial>/{fullchain,key}.pem
PUBLISHED = "/etc/dify-kit/certificates"
# The answers to the challenges of the CA.
CHALLENGES = "/var/lib/dify-kit/challenges"

GATEWAY_DIRECTORY = "/etc/dify-gateway"
LITELLM_DIRECTORY = "/etc/dify-kit/litellm"
