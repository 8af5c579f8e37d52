"""The Discovery feature: machines that nobody knows yet tell Foreman of themselves, and it tells them what to boot."""
