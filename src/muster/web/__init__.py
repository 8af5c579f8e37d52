"""The cluster's page: what the commands' ``--json`` says, for a browser; useful without JavaScript, live with it."""
