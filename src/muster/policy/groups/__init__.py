"""Several providers behind one contract: which of them a call goes to, and what becomes of the others."""
