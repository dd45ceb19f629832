-- What a careless dump loses or breaks.
CREATE DATABASE `Haus & ``Hof`` 'ä"` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE DATABASE home CHARACTER SET latin1;

USE home;
CREATE TABLE `a reads z` (
    id INT AUTO_INCREMENT PRIMARY KEY, z INT NOT NULL, note VARCHAR(50) CHARACTER SET utf8mb4
) AUTO_INCREMENT = 700;
CREATE TABLE z (id INT PRIMARY KEY, name VARCHAR(20), twice INT AS (id * 2) STORED, KEY (name));
INSERT INTO z (id, name) VALUES (1, 'Küche'), (2, NULL), (3, 'NULL'), (4, '');
INSERT INTO `a reads z` (z, note) VALUES (1, '🌡 21 °C'), (3, '-- no comment'), (4, '; DROP TABLE z');
ALTER TABLE `a reads z` ADD CONSTRAINT `it's z` FOREIGN KEY (z) REFERENCES z (id);
CREATE TABLE kinds (
    d DECIMAL(20, 10), f DOUBLE, b BIT(9), j JSON, e ENUM('x', 'it''s'), s SET('p', 'q'),
    at DATETIME(6), ts TIMESTAMP NULL, y YEAR, g POINT
);
INSERT INTO kinds VALUES (-0.0000000001, 1e-300, b'100000001', '{"a": [1, null]}', 'it''s', 'p,q',
    '1000-01-01 00:00:00.000001', '2026-03-29 01:30:00', 2026, POINT(1, 2));
CREATE TABLE nothing (id INT) COMMENT = 'has no row, "but" a comment';
CREATE TABLE aria (id INT PRIMARY KEY, name TEXT) ENGINE = Aria;
INSERT INTO aria SELECT seq, REPEAT(CHAR(65 + seq % 26), seq % 300) FROM seq_1_to_1000;
CREATE TABLE past (id INT PRIMARY KEY, t INT) WITH SYSTEM VERSIONING;
INSERT INTO past VALUES (1, 20), (2, 21);
UPDATE past SET t = 22 WHERE id = 1;
DELETE FROM past WHERE id = 2;
CREATE SEQUENCE ticket START WITH 40 INCREMENT BY 2 NOCACHE;
DO NEXT VALUE FOR ticket;
CREATE VIEW `hot z` AS SELECT id, CONCAT(name, '''"\\') AS quoted FROM z WHERE id > 1;

USE `Haus & ``Hof`` 'ä"`;
CREATE TABLE ```t`` 1.2/ü%` (id INT PRIMARY KEY, `blob` LONGBLOB, `select` TEXT);
INSERT INTO ```t`` 1.2/ü%` VALUES
    (1, X'0001020A0D1A2227605C80FFFE00', 'a\nb\r\nc\td\'e"f\\g\\n`h`\Z%_'), (2, '', ''), (3, NULL, NULL);
INSERT INTO ```t`` 1.2/ü%` SELECT 4, REPEAT(UNHEX(GROUP_CONCAT(LPAD(HEX(seq), 2, '0') ORDER BY seq
    SEPARATOR '')), 4), 'every byte' FROM seq_0_to_255;
CREATE TABLE counted (what VARCHAR(20) PRIMARY KEY, n INT);
INSERT INTO counted VALUES ('t', 0);

DELIMITER //
CREATE TRIGGER `count "t"` AFTER INSERT ON ```t`` 1.2/ü%` FOR EACH ROW
BEGIN
    -- it's counted; see below
    UPDATE counted SET n = n + 1 WHERE what = 't';
END //
CREATE PROCEDURE `do it`(IN times INT, OUT answer TEXT)
BEGIN
    /* `quoted` */ SET answer = CONCAT('it''s "', times, '";\n');
END //
CREATE FUNCTION home.twice(x INT) RETURNS INT DETERMINISTIC RETURN x * 2 //
CREATE EVENT home.`every day` ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00'
    COMMENT 'not yet' DO BEGIN DELETE FROM home.nothing; END //
DELIMITER ;

CREATE USER 'reader'@'%' IDENTIFIED BY 'it''s "a" \\ `pass`';
GRANT SELECT, EXECUTE ON home.* TO 'reader'@'%';
GRANT SELECT (id), UPDATE (name) ON home.z TO 'reader'@'%' WITH GRANT OPTION;
CREATE USER 'o''brien'@'10.0.0.0/255.0.0.0' IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 3;
CREATE ROLE gardener;
GRANT ALL ON `Haus & ``Hof`` 'ä"`.* TO gardener;
GRANT gardener TO 'o''brien'@'10.0.0.0/255.0.0.0';
