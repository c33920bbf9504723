#!/bin/sh
# Hardens a Debian root the way the checks of cis-dil ask for: tests/tests/posture.rs holds three tools against the result.
#
#   posture_harden.sh ROOT
set -eu
root=$1

mkdir -p "$root/etc/modprobe.d" "$root/etc/sysctl.d" "$root/etc/rsyslog.d" "$root/etc/security/limits.d"
for module in cramfs freevxfs jffs2 hfs hfsplus udf usb-storage dccp sctp rds tipc; do
	echo "install $module /bin/true"
	echo "blacklist $module"
done >"$root/etc/modprobe.d/hardening.conf"

cat >"$root/etc/sysctl.d/60-hardening.conf" <<'END'
fs.suid_dumpable = 0
kernel.randomize_va_space = 2
net.ipv4.ip_forward = 0
net.ipv4.icmp_echo_ignore_broadcasts = 1
net.ipv4.icmp_ignore_bogus_error_responses = 1
net.ipv4.tcp_syncookies = 1
net.ipv6.conf.all.forwarding = 0
END
for part in all default; do
	cat <<END
net.ipv4.conf.$part.send_redirects = 0
net.ipv4.conf.$part.accept_source_route = 0
net.ipv4.conf.$part.accept_redirects = 0
net.ipv4.conf.$part.secure_redirects = 0
net.ipv4.conf.$part.log_martians = 1
net.ipv4.conf.$part.rp_filter = 1
net.ipv6.conf.$part.accept_source_route = 0
net.ipv6.conf.$part.accept_redirects = 0
net.ipv6.conf.$part.accept_ra = 0
END
done >>"$root/etc/sysctl.d/60-hardening.conf"

cat >"$root/etc/fstab" <<'END'
/dev/vda1 / ext4 ro 0 1
/dev/vda2 /var ext4 nodev,nosuid 0 2
/dev/vda3 /var/log ext4 nodev,nosuid,noexec 0 2
/dev/vda4 /var/log/audit ext4 nodev,nosuid,noexec 0 2
/dev/vda5 /home ext4 nodev,nosuid 0 2
tmpfs /tmp tmpfs nodev,nosuid,noexec 0 0
tmpfs /var/tmp tmpfs nodev,nosuid,noexec 0 0
tmpfs /dev/shm tmpfs nodev,nosuid,noexec 0 0
END

{
	cat <<'END'
PermitRootLogin no
PermitEmptyPasswords no
PermitUserEnvironment no
HostbasedAuthentication no
IgnoreRhosts yes
X11Forwarding no
AllowTcpForwarding no
LogLevel VERBOSE
MaxAuthTries 3
MaxSessions 2
MaxStartups 10:30:60
LoginGraceTime 60
ClientAliveInterval 300
ClientAliveCountMax 3
Banner /etc/issue.net
UsePAM yes
AllowGroups operators
Ciphers aes256-ctr,aes192-ctr,aes128-ctr
MACs hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-512,hmac-sha2-256
END
	grep -Ev '^(X11Forwarding|UsePAM)' "$root/etc/ssh/sshd_config"
} >"$root/etc/ssh/sshd_config.new"
mv "$root/etc/ssh/sshd_config.new" "$root/etc/ssh/sshd_config"
chmod 600 "$root/etc/ssh/sshd_config"

chmod 600 "$root/etc/crontab"
for part in hourly daily weekly monthly d; do
	mkdir -p "$root/etc/cron.$part"
	chmod 700 "$root/etc/cron.$part"
done
echo root >"$root/etc/cron.allow"
chmod 600 "$root/etc/cron.allow"

for file in issue issue.net; do
	echo 'Only for those who were authorized; unauthorized access is prosecuted, all activity is monitored and private data disclosed to law enforcement.' >"$root/etc/$file"
done

sed -i -e 's/^PASS_MAX_DAYS.*/PASS_MAX_DAYS 365/' -e 's/^PASS_MIN_DAYS.*/PASS_MIN_DAYS 7/' -e 's/^UMASK.*/UMASK 027/' "$root/etc/login.defs"
echo 'INACTIVE=30' >>"$root/etc/default/useradd"
echo 'umask 027' >>"$root/etc/profile"
echo 'umask 027' >>"$root/etc/bash.bashrc"
echo 'declare -xr TMOUT=600' >>"$root/etc/profile"
sed -i 's/^# auth       required   pam_wheel.so$/auth required pam_wheel.so use_uid/' "$root/etc/pam.d/su"
echo 'operators:x:991:' >>"$root/etc/group"
echo 'operators:!::' >>"$root/etc/gshadow"
# Lockout and reuse, before pam_unix.
sed -i '0,/^auth.*pam_unix/s//auth required pam_faillock.so preauth\n&/' "$root/etc/pam.d/common-auth"
sed -i '0,/^password.*pam_unix/s//password requisite pam_pwhistory.so remember=5 use_authtok\n&/' "$root/etc/pam.d/common-password"
echo 'minlen = 14' >>"$root/etc/security/pwquality.conf"
echo '* hard core 0' >"$root/etc/security/limits.d/core.conf"
echo '* hard core 0' >>"$root/etc/security/limits.conf"

# An account with a password, so that the rules for passwords have an object.
# shellcheck disable=SC2016
echo 'operator:$6$rounds=65536$saltsalt$fosnhOE6HxbtPvV.rv2xKRz5uagDJxUgvwEY1bfq5YIGFqqg4iMdlDIBJTqlOGGTyVNZyxTVhf7pC29p4hQiO.:19000:7:365:7:30::' >>"$root/etc/shadow"
echo 'operator:x:1000:1000::/home/operator:/bin/bash' >>"$root/etc/passwd"
echo 'operator:x:1000:' >>"$root/etc/group"
echo 'operator:!::' >>"$root/etc/gshadow"
mkdir -p "$root/home/operator"
chmod 750 "$root/home/operator"
chown 1000:1000 "$root/home/operator"
chmod 600 "$root"/etc/*shadow "$root"/etc/*shadow-

echo '*.* @@loghost.example.org' >"$root/etc/rsyslog.d/remote.conf"
# shellcheck disable=SC2016
echo '$FileCreateMode 0640' >>"$root/etc/rsyslog.conf"

sed -i -e 's/^space_left_action.*/space_left_action = email/' -e 's/^admin_space_left_action.*/admin_space_left_action = single/' \
	-e 's/^max_log_file_action.*/max_log_file_action = rotate/' "$root/etc/audit/auditd.conf"
{
	for arch in b32 b64; do
		head="-a always,exit -F arch=$arch"
		user='-F auid>=1000 -F auid!=unset'
		for call in adjtimex settimeofday; do
			echo "$head -S $call -k audit_time_rules"
		done
		echo "$head -S clock_settime -F a0=0x0 -k time-change"
		echo "$head -S sethostname,setdomainname -F key=audit_rules_networkconfig_modification"
		for call in chmod fchmod fchmodat chown fchown fchownat lchown setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr; do
			echo "$head -S $call $user -F key=perm_mod"
		done
		for call in creat open openat truncate ftruncate; do
			echo "$head -S $call -F exit=-EACCES $user -F key=access"
			echo "$head -S $call -F exit=-EPERM $user -F key=access"
		done
		echo "$head -S mount $user -F key=export"
		for call in unlink unlinkat rename renameat; do
			echo "$head -S $call $user -F key=delete"
		done
		for call in init_module finit_module delete_module; do
			echo "$head -S $call -F key=modules"
		done
		echo "$head -S execve -C uid!=euid -F euid=0 -k setuid"
		echo "$head -S execve -C gid!=egid -F egid=0 -k setgid"
	done
	echo '-w /etc/localtime -p wa -k audit_time_rules'
	for file in issue issue.net hosts sysconfig/network; do
		echo "-w /etc/$file -p wa -k audit_rules_networkconfig_modification"
	done
	for file in group passwd gshadow shadow security/opasswd; do
		echo "-w /etc/$file -p wa -k audit_rules_usergroup_modification"
	done
	for file in /var/log/lastlog /var/log/faillog /var/log/tallylog; do
		echo "-w $file -p wa -k logins"
	done
	for file in /var/run/utmp /var/log/wtmp /var/log/btmp; do
		echo "-w $file -p wa -k session"
	done
	echo '-w /etc/sudoers -p wa -k actions'
	echo '-w /etc/sudoers.d/ -p wa -k actions'
	echo '-a always,exit -F path=/usr/bin/sudo -F perm=x -F auid>=1000 -F auid!=unset -F key=privileged'
	echo '-e 2'
} >"$root/etc/audit/rules.d/audit.rules"
cp "$root/etc/audit/rules.d/audit.rules" "$root/etc/audit/audit.rules"
