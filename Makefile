# Every verb installs what it needs first. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

UV := .uv/bin/uv
RUN := .venv/bin
export UV_COMPILE_BYTECODE := 1
# Every worker of a test run imports all tests, which pytest rewrites: that is kept, whatever the shell here says (empty: unset).
export PYTHONDONTWRITEBYTECODE :=
# Debian's servers for demo and tests; each can be absent, and then what needs it says so.
DEMO_PACKAGES := bind9
TEST_PACKAGES := bind9 dnsutils haproxy postgresql openssl curl keepalived nginx-light libnginx-mod-stream \
  faketime iproute2 iptables pdns-server pdns-backend-sqlite3 puppet-agent puppetserver softhsm2 \
  dnf docker-registry gpg gpg-agent skopeo ruby nftables prometheus firewalld dbus ufw systemd \
  rabbitmq-server mosquitto mosquitto-clients python3-qpid-proton rpm debootstrap createrepo-c \
  zsh fish mandoc man-db age chromium ansible-core ansible-lint systemd-container openssh-client \
  isc-dhcp-server tftp-hpa tftpd-hpa atftp kea-dhcp4-server kea-ctrl-agent kea-common \
  dnsmasq-base libvirt-daemon libvirt-clients \
  samba samba-ad-provision samba-dsdb-modules samba-vfs-modules ldb-tools adcli krb5-user ldap-utils \
  libsasl2-modules-gssapi-mit python3-gssapi \
  krb5-kdc krb5-admin-server libkrb5-dev gcc libc6-dev \
  ipmitool openipmi freeipmi-tools openscap-scanner \
  qemu-system-x86 ovmf ipxe-qemu grub-common grub-efi-amd64-bin busybox-static
# Tests mostly wait for servers. Those of one file stay together, since they share a cluster.
WORKERS ?= 3
BENCH_PACKAGES := $(TEST_PACKAGES) wrk apache2-utils rsync

.PHONY: help demo test collected proof chaos check fix bench docs man requirements setup dist packages-demo packages-test packages-bench clean

help: ## Print this list.
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup packages-demo ## Run a three-member cluster behind real HAProxy and examine it (CHECK=1: stop after the check).
	@$(RUN)/muster demo $(if $(CHECK),--check)

# Checking is one core's work, and installing mostly waits. Every worker imports all tests; what pytest makes of their text is
# kept meanwhile, so that none of them has to make it again.
test: setup ## Check everything and run all tests (MUSTER_NO_SKIPS=1: a missing server is a failure).
	@$(MAKE) --no-print-directory --jobs=3 packages-test check collected
	@MUSTER_NO_SKIPS=$(MUSTER_NO_SKIPS) WORKERS=$(WORKERS) scripts/tested $(TESTS)

collected: setup
	@$(RUN)/python -m pytest --collect-only -q -p no:cacheprovider $(TESTS) >/dev/null 2>&1 || true

proof: setup packages-test ## Run at full size what make test runs short, then the whole fault matrix; print the figures.
	@MUSTER_PROOF=1 MUSTER_NO_SKIPS=$(MUSTER_NO_SKIPS) $(RUN)/python -m pytest -s -m proof $(TESTS)
	@$(MAKE) --no-print-directory chaos

chaos: setup packages-test ## Run the fault matrix for ROUNDS rounds with random seeds and print the table.
	@$(RUN)/python -m tests.faults --rounds $(or $(ROUNDS),1) $(if $(SEED),--seed $(SEED)) $(ARGS)

check: setup ## Lint, types, circles of files, import floors, generated documents and requirements.
	@$(RUN)/ruff check . && $(RUN)/ruff format --check --quiet .
	@$(RUN)/mypy
	@$(RUN)/vermin --quiet --no-tips --violations --eval-annotations -t=3.6- src/muster/client/bootstrap.py
	@$(RUN)/python scripts/circles.py
	@$(RUN)/lint-imports --no-logo 2>/dev/null | grep -E "KEPT|BROKEN|No cycles|->" ; test $${PIPESTATUS[0]} -eq 0
	@$(RUN)/python docs/generate.py --check
	@scripts/requirements --check

fix: setup ## Format and mend what can be mended by machine.
	@$(RUN)/ruff check --fix --quiet . ; $(RUN)/ruff format --quiet .

bench: setup packages-bench ## Measure against named peers and print ratios.
	@$(RUN)/python -m bench $(ARGS)

docs: setup ## Generate docs/reference from the code, and the site of all documents in build/site.
	@$(RUN)/python docs/generate.py
	@$(RUN)/sphinx-build -q -n -W --keep-going -c docs . build/site && echo "build/site/docs/index.html"

man: setup ## Write the manual's pages, muster(1) and all others, from the code into build/man.
	@$(RUN)/python docs/manual.py

requirements: setup ## Export packaging/requirements*.txt, with hashes, from uv.lock.
	@scripts/requirements

dist: setup ## Build the wheel, the deb, the rpm and the Ansible collection into dist/.
	@scripts/packages rpm ansible-core
	@scripts/packaged
	@scripts/collection

setup: .venv/.synced

.venv/.synced: uv.lock pyproject.toml | $(UV)
	@$(UV) sync --locked --quiet
	@! command -v krb5-config >/dev/null || scripts/kerberos
	@touch $@

# uv has a venv of its own: `uv sync` removes from .venv everything that is not in the lock, itself included.
$(UV): scripts/uv.txt
	@python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/packages python3-venv
	@python3 -m venv .uv && .uv/bin/pip install --quiet --require-hashes -r scripts/uv.txt
	@touch $@

packages-demo:
	@scripts/packages $(DEMO_PACKAGES)

packages-bench:
	@scripts/packages $(BENCH_PACKAGES)

# Debian's archive and PyPI do not wait for each other; what is unpacked beside comes from where apt has its lists from.
packages-test: | $(UV)
	@scripts/pulp & pulp=$$!; scripts/packages $(TEST_PACKAGES) && scripts/pythons && scripts/kea && scripts/kernel && scripts/kerberos; \
	  said=$$?; wait $$pulp && exit $$said

clean: ## Remove what these verbs made, caches included.
	@rm -rf .venv .uv .pulp .pythons .kernel .kea .demo .muster .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build bench/results
