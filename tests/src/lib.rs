//! What the end-to-end tests share: the servers and programs that they start.

pub mod mariadb;
