"""The platform `kubernetes`: service descriptions as objects of a namespace.

`pods`, `workloads`, `policies`, `storage` and `gate` are functions from descriptions to manifests, in the form of the
Kubernetes API; `platform` creates what they return.
"""

# Of Pulumi's Kubernetes provider, which set-up installs. Its Python package is not installed: Pulumi's language host
# asks for the plugin of each package of the environment, so every Docker stack would need it.
PROVIDER_VERSION = "4.25.0"
