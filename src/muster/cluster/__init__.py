"""The cluster: its file, its members, what they last said of themselves, and what an administrator wishes of them."""
