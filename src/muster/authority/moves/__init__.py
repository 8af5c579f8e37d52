"""How a Puppet CA comes and goes: founded, taken over from a puppetserver, given back, promoted from a copy."""
