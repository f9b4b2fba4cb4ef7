//! MySQL and MariaDB, as mysqld_exporter tells them.
