CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0584bdc529eb');
CREATE TABLE "datasets" (
	dataset_uuid VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(500) NOT NULL, 
	digest VARCHAR(36) NOT NULL, 
	dataset_source_type VARCHAR(36) NOT NULL, 
	dataset_source TEXT NOT NULL, 
	dataset_schema TEXT, 
	dataset_profile TEXT, 
	CONSTRAINT dataset_pk PRIMARY KEY (experiment_id, name, digest), 
	CONSTRAINT fk_datasets_experiment_id_experiments FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE CASCADE
);
INSERT INTO "datasets" VALUES('3d31bb6c7d43441da1e65f7821ce3fec',1,'toy','abc123','code','{"tags": {}}',NULL,NULL);
CREATE TABLE experiment_tags (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(5000), 
	experiment_id INTEGER NOT NULL, 
	CONSTRAINT experiment_tag_pk PRIMARY KEY ("key", experiment_id), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id)
);
INSERT INTO "experiment_tags" VALUES('owner','ann',1);
CREATE TABLE experiments (
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	artifact_location VARCHAR(256), 
	lifecycle_stage VARCHAR(32), creation_time BIGINT, last_update_time BIGINT, 
	CONSTRAINT experiment_pk PRIMARY KEY (experiment_id), 
	CONSTRAINT experiments_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	UNIQUE (name)
);
INSERT INTO "experiments" VALUES(0,'Default','./mlruns/0','active',1795273418952,1795273418952);
INSERT INTO "experiments" VALUES(1,'credit','./mlruns/1','active',1795273419003,1795273419003);
CREATE TABLE input_tags (
	input_uuid VARCHAR(36) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	value VARCHAR(500) NOT NULL, 
	CONSTRAINT input_tags_pk PRIMARY KEY (input_uuid, name)
);
INSERT INTO "input_tags" VALUES('9b481971b526406da92b60426ade7e6c','mlflow.data.context','training');
CREATE TABLE inputs (
	input_uuid VARCHAR(36) NOT NULL, 
	source_type VARCHAR(36) NOT NULL, 
	source_id VARCHAR(36) NOT NULL, 
	destination_type VARCHAR(36) NOT NULL, 
	destination_id VARCHAR(36) NOT NULL, 
	CONSTRAINT inputs_pk PRIMARY KEY (source_type, source_id, destination_type, destination_id)
);
INSERT INTO "inputs" VALUES('9b481971b526406da92b60426ade7e6c','DATASET','3d31bb6c7d43441da1e65f7821ce3fec','RUN','20c63b15e87b460cb170c0f5becf6b50');
CREATE TABLE "latest_metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT, 
	step BIGINT NOT NULL, 
	is_nan BOOLEAN NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT latest_metric_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
INSERT INTO "latest_metrics" VALUES('loss',0.05,1795273420650,19,0,'2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "latest_metrics" VALUES('twice',2.0,1795273420726,3,0,'2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "latest_metrics" VALUES('nan',0.0,1795273420778,0,1,'2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "latest_metrics" VALUES('inf',1.79769313486231562234e+308,1795273420810,3,0,'2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "latest_metrics" VALUES('least',-1.0e+300,1795273420850,-5,0,'2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "latest_metrics" VALUES('auc',0.75,1795273421014,1,0,'8b1ad89168c24757b3e52901b07d04dc');
INSERT INTO "latest_metrics" VALUES('auc',0.25,1795273421294,0,0,'9d1c23bf83754f74afa914510afe2d5e');
INSERT INTO "latest_metrics" VALUES('auc',1.0,1795273421378,0,0,'261c5e6705524402b91a42adf631a970');
CREATE TABLE "metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	step BIGINT DEFAULT '0' NOT NULL, 
	is_nan BOOLEAN DEFAULT '0' NOT NULL, 
	CONSTRAINT metric_pk PRIMARY KEY ("key", timestamp, step, run_uuid, value, is_nan), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
INSERT INTO "metrics" VALUES('loss',1.0,1795273419762,'2e5f1a9892564589b241fce33cdb5430',0,0);
INSERT INTO "metrics" VALUES('loss',0.5,1795273419819,'2e5f1a9892564589b241fce33cdb5430',1,0);
INSERT INTO "metrics" VALUES('loss',3.33333333333333314829e-01,1795273419894,'2e5f1a9892564589b241fce33cdb5430',2,0);
INSERT INTO "metrics" VALUES('loss',0.25,1795273419933,'2e5f1a9892564589b241fce33cdb5430',3,0);
INSERT INTO "metrics" VALUES('loss',0.2,1795273419984,'2e5f1a9892564589b241fce33cdb5430',4,0);
INSERT INTO "metrics" VALUES('loss',1.66666666666666657414e-01,1795273420034,'2e5f1a9892564589b241fce33cdb5430',5,0);
INSERT INTO "metrics" VALUES('loss',1.42857142857142849212e-01,1795273420078,'2e5f1a9892564589b241fce33cdb5430',6,0);
INSERT INTO "metrics" VALUES('loss',0.125,1795273420134,'2e5f1a9892564589b241fce33cdb5430',7,0);
INSERT INTO "metrics" VALUES('loss',1.11111111111111104943e-01,1795273420170,'2e5f1a9892564589b241fce33cdb5430',8,0);
INSERT INTO "metrics" VALUES('loss',0.1,1795273420214,'2e5f1a9892564589b241fce33cdb5430',9,0);
INSERT INTO "metrics" VALUES('loss',9.09090909090909116141e-02,1795273420262,'2e5f1a9892564589b241fce33cdb5430',10,0);
INSERT INTO "metrics" VALUES('loss',8.33333333333333287074e-02,1795273420302,'2e5f1a9892564589b241fce33cdb5430',11,0);
INSERT INTO "metrics" VALUES('loss',7.6923076923076927347e-02,1795273420358,'2e5f1a9892564589b241fce33cdb5430',12,0);
INSERT INTO "metrics" VALUES('loss',7.14285714285714246063e-02,1795273420402,'2e5f1a9892564589b241fce33cdb5430',13,0);
INSERT INTO "metrics" VALUES('loss',6.66666666666666657414e-02,1795273420437,'2e5f1a9892564589b241fce33cdb5430',14,0);
INSERT INTO "metrics" VALUES('loss',0.0625,1795273420482,'2e5f1a9892564589b241fce33cdb5430',15,0);
INSERT INTO "metrics" VALUES('loss',5.8823529411764705066e-02,1795273420526,'2e5f1a9892564589b241fce33cdb5430',16,0);
INSERT INTO "metrics" VALUES('loss',5.55555555555555524716e-02,1795273420562,'2e5f1a9892564589b241fce33cdb5430',17,0);
INSERT INTO "metrics" VALUES('loss',5.26315789473684181309e-02,1795273420610,'2e5f1a9892564589b241fce33cdb5430',18,0);
INSERT INTO "metrics" VALUES('loss',0.05,1795273420650,'2e5f1a9892564589b241fce33cdb5430',19,0);
INSERT INTO "metrics" VALUES('twice',1.0,1795273420694,'2e5f1a9892564589b241fce33cdb5430',3,0);
INSERT INTO "metrics" VALUES('twice',2.0,1795273420726,'2e5f1a9892564589b241fce33cdb5430',3,0);
INSERT INTO "metrics" VALUES('nan',0.0,1795273420778,'2e5f1a9892564589b241fce33cdb5430',0,1);
INSERT INTO "metrics" VALUES('inf',1.79769313486231562234e+308,1795273420810,'2e5f1a9892564589b241fce33cdb5430',3,0);
INSERT INTO "metrics" VALUES('least',-1.0e+300,1795273420850,'2e5f1a9892564589b241fce33cdb5430',-5,0);
INSERT INTO "metrics" VALUES('auc',0.5,1795273420986,'8b1ad89168c24757b3e52901b07d04dc',0,0);
INSERT INTO "metrics" VALUES('auc',0.75,1795273421014,'8b1ad89168c24757b3e52901b07d04dc',1,0);
INSERT INTO "metrics" VALUES('auc',0.25,1795273421294,'9d1c23bf83754f74afa914510afe2d5e',0,0);
INSERT INTO "metrics" VALUES('auc',1.0,1795273421378,'261c5e6705524402b91a42adf631a970',0,0);
CREATE TABLE model_version_tags (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(5000), 
	name VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	CONSTRAINT model_version_tag_pk PRIMARY KEY ("key", name, version), 
	FOREIGN KEY(name, version) REFERENCES model_versions (name, version) ON UPDATE cascade
);
INSERT INTO "model_version_tags" VALUES('ok','yes','credit',2);
CREATE TABLE "model_versions" (
	name VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	creation_time BIGINT, 
	last_updated_time BIGINT, 
	description VARCHAR(5000), 
	user_id VARCHAR(256), 
	current_stage VARCHAR(20), 
	source VARCHAR(500), 
	run_id VARCHAR(32), 
	status VARCHAR(20), 
	status_message VARCHAR(500), 
	run_link VARCHAR(500), storage_location VARCHAR(500), 
	CONSTRAINT model_version_pk PRIMARY KEY (name, version), 
	FOREIGN KEY(name) REFERENCES registered_models (name) ON UPDATE CASCADE
);
INSERT INTO "model_versions" VALUES('credit',1,1795273421957,1795273422218,'one',NULL,'Production','./mlruns/1/20c63b15e87b460cb170c0f5becf6b50/artifacts/model','20c63b15e87b460cb170c0f5becf6b50','READY',NULL,NULL,'./mlruns/1/20c63b15e87b460cb170c0f5becf6b50/artifacts/model');
INSERT INTO "model_versions" VALUES('credit',2,1795273422029,1795273422029,'two',NULL,'None','./mlruns/1/20c63b15e87b460cb170c0f5becf6b50/artifacts/model','20c63b15e87b460cb170c0f5becf6b50','READY',NULL,NULL,'./mlruns/1/20c63b15e87b460cb170c0f5becf6b50/artifacts/model');
CREATE TABLE "params" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000) NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT param_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO "params" VALUES('lr','0.1','2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "params" VALUES('depth','7','2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "params" VALUES('text','a b
c','2e5f1a9892564589b241fce33cdb5430');
CREATE TABLE registered_model_aliases (
	alias VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	CONSTRAINT registered_model_alias_pk PRIMARY KEY (name, alias), 
	CONSTRAINT registered_model_alias_name_fkey FOREIGN KEY(name) REFERENCES registered_models (name) ON DELETE cascade ON UPDATE cascade
);
INSERT INTO "registered_model_aliases" VALUES('champion',1,'credit');
CREATE TABLE registered_model_tags (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(5000), 
	name VARCHAR(256) NOT NULL, 
	CONSTRAINT registered_model_tag_pk PRIMARY KEY ("key", name), 
	FOREIGN KEY(name) REFERENCES registered_models (name) ON UPDATE cascade
);
INSERT INTO "registered_model_tags" VALUES('k','v','credit');
CREATE TABLE registered_models (
	name VARCHAR(256) NOT NULL, 
	creation_time BIGINT, 
	last_updated_time BIGINT, 
	description VARCHAR(5000), 
	CONSTRAINT registered_model_pk PRIMARY KEY (name), 
	UNIQUE (name)
);
INSERT INTO "registered_models" VALUES('credit',1795273421901,1795273422218,'All credit');
CREATE TABLE "runs" (
	run_uuid VARCHAR(32) NOT NULL, 
	name VARCHAR(250), 
	source_type VARCHAR(20), 
	source_name VARCHAR(500), 
	entry_point_name VARCHAR(50), 
	user_id VARCHAR(256), 
	status VARCHAR(9), 
	start_time BIGINT, 
	end_time BIGINT, 
	source_version VARCHAR(50), 
	lifecycle_stage VARCHAR(20), 
	artifact_uri VARCHAR(200), 
	experiment_id INTEGER, deleted_time BIGINT, 
	CONSTRAINT run_pk PRIMARY KEY (run_uuid), 
	CONSTRAINT runs_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT source_type CHECK (source_type IN ('NOTEBOOK', 'JOB', 'LOCAL', 'UNKNOWN', 'PROJECT')), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CHECK (status IN ('SCHEDULED', 'FAILED', 'FINISHED', 'RUNNING', 'KILLED'))
);
INSERT INTO "runs" VALUES('2e5f1a9892564589b241fce33cdb5430','parent','UNKNOWN','','','root','FINISHED',1795273419622,1795273421076,'','active','./mlruns/1/2e5f1a9892564589b241fce33cdb5430/artifacts',1,NULL);
INSERT INTO "runs" VALUES('8b1ad89168c24757b3e52901b07d04dc','child','UNKNOWN','','','root','FINISHED',1795273420943,1795273421042,'','active','./mlruns/1/8b1ad89168c24757b3e52901b07d04dc/artifacts',1,NULL);
INSERT INTO "runs" VALUES('08391a2ed4674b71a2031de1662939d1','fails','UNKNOWN','','','root','FAILED',1795273421127,1795273421198,'','active','./mlruns/1/08391a2ed4674b71a2031de1662939d1/artifacts',1,NULL);
INSERT INTO "runs" VALUES('9d1c23bf83754f74afa914510afe2d5e','still running','UNKNOWN','','','unknown','RUNNING',1795273421238,NULL,'','active','./mlruns/1/9d1c23bf83754f74afa914510afe2d5e/artifacts',1,NULL);
INSERT INTO "runs" VALUES('261c5e6705524402b91a42adf631a970','gone','UNKNOWN','','','root','FINISHED',1795273421327,1795273421447,'','deleted','./mlruns/1/261c5e6705524402b91a42adf631a970/artifacts',1,1795273421499);
INSERT INTO "runs" VALUES('20c63b15e87b460cb170c0f5becf6b50','reads','UNKNOWN','','','root','FINISHED',1795273421548,1795273421734,'','active','./mlruns/1/20c63b15e87b460cb170c0f5becf6b50/artifacts',1,NULL);
CREATE TABLE "tags" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000), 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT tag_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO "tags" VALUES('mlflow.user','root','2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "tags" VALUES('mlflow.source.name','make.py','2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "tags" VALUES('mlflow.note.content','the first','2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "tags" VALUES('mlflow.runName','parent','2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "tags" VALUES('team','risk','2e5f1a9892564589b241fce33cdb5430');
INSERT INTO "tags" VALUES('mlflow.user','root','8b1ad89168c24757b3e52901b07d04dc');
INSERT INTO "tags" VALUES('mlflow.source.name','make.py','8b1ad89168c24757b3e52901b07d04dc');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','8b1ad89168c24757b3e52901b07d04dc');
INSERT INTO "tags" VALUES('mlflow.parentRunId','2e5f1a9892564589b241fce33cdb5430','8b1ad89168c24757b3e52901b07d04dc');
INSERT INTO "tags" VALUES('mlflow.runName','child','8b1ad89168c24757b3e52901b07d04dc');
INSERT INTO "tags" VALUES('mlflow.user','root','08391a2ed4674b71a2031de1662939d1');
INSERT INTO "tags" VALUES('mlflow.source.name','make.py','08391a2ed4674b71a2031de1662939d1');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','08391a2ed4674b71a2031de1662939d1');
INSERT INTO "tags" VALUES('mlflow.runName','fails','08391a2ed4674b71a2031de1662939d1');
INSERT INTO "tags" VALUES('mlflow.runName','still running','9d1c23bf83754f74afa914510afe2d5e');
INSERT INTO "tags" VALUES('mlflow.user','root','261c5e6705524402b91a42adf631a970');
INSERT INTO "tags" VALUES('mlflow.source.name','make.py','261c5e6705524402b91a42adf631a970');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','261c5e6705524402b91a42adf631a970');
INSERT INTO "tags" VALUES('mlflow.runName','gone','261c5e6705524402b91a42adf631a970');
INSERT INTO "tags" VALUES('mlflow.user','root','20c63b15e87b460cb170c0f5becf6b50');
INSERT INTO "tags" VALUES('mlflow.source.name','make.py','20c63b15e87b460cb170c0f5becf6b50');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','20c63b15e87b460cb170c0f5becf6b50');
INSERT INTO "tags" VALUES('mlflow.runName','reads','20c63b15e87b460cb170c0f5becf6b50');
