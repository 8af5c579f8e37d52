"""The Realm feature: a new host gets an account in FreeIPA or Active Directory, and the one-time password to join with."""
