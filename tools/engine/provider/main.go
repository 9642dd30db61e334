// Command pulumi-resource-docker is Pulumi's Docker provider: the Terraform provider behind Pulumi's bridge,
// with the resource tokens and property names of the pulumi_docker SDK.
package main

import (
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	shimv2 "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim/sdk-v2"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/terraform-providers/terraform-provider-docker/internal/provider"
)

// version is the one of the pulumi_docker SDK whose names are used.
const version = "5.2.0"

const maxNameLength = 255

func resource(module, name string) *tfbridge.ResourceInfo {
	return &tfbridge.ResourceInfo{Tok: tokens.Type("docker:index/" + module + ":" + name)}
}

func dataSource(module string) *tfbridge.DataSourceInfo {
	return &tfbridge.DataSourceInfo{Tok: tokens.ModuleMember("docker:index/" + module + ":" + module)}
}

func info() tfbridge.ProviderInfo {
	container := resource("container", "Container")
	// The bridge would make plurals of these.
	container.Fields = map[string]*tfbridge.SchemaInfo{
		"command":           {Name: "command"},
		"networks_advanced": {Name: "networksAdvanced"},
	}
	config := map[string]*tfbridge.SchemaInfo{"registry_auth": {Name: "registryAuth"}}
	image := resource("remoteImage", "RemoteImage")
	image.Fields = map[string]*tfbridge.SchemaInfo{"name": {Name: "name"}}

	docker := tfbridge.ProviderInfo{
		P:       shimv2.NewProvider(provider.New(version)()),
		Name:    "docker",
		Version: version,
		Config:  config,
		Resources: map[string]*tfbridge.ResourceInfo{
			"docker_container":      container,
			"docker_image":          image,
			"docker_registry_image": resource("registryImage", "RegistryImage"),
			"docker_network":        resource("network", "Network"),
			"docker_volume":         resource("volume", "Volume"),
			"docker_config":         resource("serviceConfig", "ServiceConfig"),
			"docker_secret":         resource("secret", "Secret"),
			"docker_service":        resource("service", "Service"),
			"docker_plugin":         resource("plugin", "Plugin"),
			"docker_tag":            resource("tag", "Tag"),
		},
		DataSources: map[string]*tfbridge.DataSourceInfo{
			"docker_registry_image":           dataSource("getRegistryImage"),
			"docker_registry_image_manifests": dataSource("getRegistryImageManifests"),
			"docker_network":                  dataSource("getNetwork"),
			"docker_plugin":                   dataSource("getPlugin"),
			"docker_image":                    dataSource("getRemoteImage"),
			"docker_logs":                     dataSource("getLogs"),
		},
		IgnoreMappings: []string{"docker_compose", "docker_buildx_builder"},
	}
	docker.SetAutonaming(maxNameLength, "-")
	return docker
}

func main() {
	// The engine asks for the schema only to generate SDKs, and ours is published: an empty one will do.
	tfbridge.Main("docker", version, info(), []byte("{}"))
}
