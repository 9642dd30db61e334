// Command pulumi-resource-kubernetes is Pulumi's Kubernetes provider, from its published module.
package main

import "github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"

// version is the one that the program asks for (infra/platforms/kubernetes).
const version = "4.25.0"

// The engine reads a schema to generate SDKs, and to import or read objects that it does not manage. Creating, changing
// and deleting them needs its name and its version only.
const schema = `{"name": "kubernetes", "version": "` + version + `"}`

func main() {
	provider.Serve("kubernetes", version, []byte(schema), []byte("{}"))
}
