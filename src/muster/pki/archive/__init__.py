"""Archives of certificates as Foreman's installers make one for each Smart Proxy: made, read, judged and put into place."""
