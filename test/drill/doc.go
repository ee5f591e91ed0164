// Package drill rehearses failures on the docker-compose deployment, as an operator would: `make drill`
// runs it. It owns the rehearsals and what they check, and leaves the deployment to deploy/.
package drill
