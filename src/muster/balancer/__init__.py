"""The balancer: a model of services and servers, HAProxy's configuration rendered from it, and HAProxy driven."""
