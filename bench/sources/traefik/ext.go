// Stands in for a module that Traefik keeps in its repository only: the two types that its core embeds.
package ext

// HTTP extends the dynamic HTTP configuration by nothing.
type HTTP struct{}

// Router extends a router by nothing.
type Router struct{}
