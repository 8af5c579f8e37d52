"""Certificates, requests and revocation lists as puppetserver makes and reads them. Pure: no store, no file."""
