"""The container gateway: which images users and hosts may read, and tokens that hold on every member."""
