CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('dc11669786a5');
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
INSERT INTO "datasets" VALUES('f9ae7bf8ea8246799913abf7e8cf7d59',1,'toy','abc123','code','{"tags": {}}',NULL,NULL);
CREATE TABLE "experiment_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value TEXT, 
	experiment_id INTEGER NOT NULL, 
	CONSTRAINT experiment_tag_pk PRIMARY KEY ("key", experiment_id), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id)
);
INSERT INTO "experiment_tags" VALUES('owner','ann',1);
CREATE TABLE "experiments" (
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	artifact_location VARCHAR(256), 
	lifecycle_stage VARCHAR(32), 
	creation_time BIGINT, 
	last_update_time BIGINT, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT experiment_pk PRIMARY KEY (experiment_id), 
	CONSTRAINT experiments_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT uq_experiments_workspace_name UNIQUE (workspace, name)
);
INSERT INTO "experiments" VALUES(0,'Default','./mlruns/0','active',1795273167394,1795273167394,'default');
INSERT INTO "experiments" VALUES(1,'credit','./mlruns/1','active',1795273167414,1795273167414,'default');
CREATE TABLE input_tags (
	input_uuid VARCHAR(36) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	value VARCHAR(500) NOT NULL, 
	CONSTRAINT input_tags_pk PRIMARY KEY (input_uuid, name)
);
INSERT INTO "input_tags" VALUES('bb9fc1c9f3594ad5bf31136974f8ce21','mlflow.data.context','training');
CREATE TABLE inputs (
	input_uuid VARCHAR(36) NOT NULL, 
	source_type VARCHAR(36) NOT NULL, 
	source_id VARCHAR(36) NOT NULL, 
	destination_type VARCHAR(36) NOT NULL, 
	destination_id VARCHAR(36) NOT NULL, step BIGINT DEFAULT '0' NOT NULL, 
	CONSTRAINT inputs_pk PRIMARY KEY (source_type, source_id, destination_type, destination_id)
);
INSERT INTO "inputs" VALUES('bb9fc1c9f3594ad5bf31136974f8ce21','DATASET','f9ae7bf8ea8246799913abf7e8cf7d59','RUN','55d6b7be5f09438fb4c15a81a634a234',0);
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
INSERT INTO "latest_metrics" VALUES('loss',0.05,1795273168142,19,0,'39b1b09e3e0649239096e967c4410f78');
INSERT INTO "latest_metrics" VALUES('twice',2.0,1795273168176,3,0,'39b1b09e3e0649239096e967c4410f78');
INSERT INTO "latest_metrics" VALUES('nan',0.0,1795273168192,0,1,'39b1b09e3e0649239096e967c4410f78');
INSERT INTO "latest_metrics" VALUES('inf',1.79769313486231562234e+308,1795273168203,3,0,'39b1b09e3e0649239096e967c4410f78');
INSERT INTO "latest_metrics" VALUES('least',-1.0e+300,1795273168208,-5,0,'39b1b09e3e0649239096e967c4410f78');
INSERT INTO "latest_metrics" VALUES('auc',0.75,1795273168298,1,0,'f5d17c8c2ab242899479d011a15ba730');
INSERT INTO "latest_metrics" VALUES('auc',0.25,1795273168414,0,0,'6681ad52cda44adeaf6fbce20bc4fd6b');
INSERT INTO "latest_metrics" VALUES('auc',1.0,1795273168446,0,0,'9a8b05bb686445cb8f62a161d4d8b490');
CREATE TABLE logged_models (
	model_id VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(500) NOT NULL, 
	artifact_location VARCHAR(1000) NOT NULL, 
	creation_timestamp_ms BIGINT NOT NULL, 
	last_updated_timestamp_ms BIGINT NOT NULL, 
	status INTEGER NOT NULL, 
	lifecycle_stage VARCHAR(32), 
	model_type VARCHAR(500), 
	source_run_id VARCHAR(32), 
	status_message VARCHAR(1000), 
	CONSTRAINT logged_models_pk PRIMARY KEY (model_id), 
	CONSTRAINT logged_models_lifecycle_stage_check CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT fk_logged_models_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE CASCADE
);
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
INSERT INTO "metrics" VALUES('loss',1.0,1795273167689,'39b1b09e3e0649239096e967c4410f78',0,0);
INSERT INTO "metrics" VALUES('loss',0.5,1795273167710,'39b1b09e3e0649239096e967c4410f78',1,0);
INSERT INTO "metrics" VALUES('loss',3.33333333333333314829e-01,1795273167734,'39b1b09e3e0649239096e967c4410f78',2,0);
INSERT INTO "metrics" VALUES('loss',0.25,1795273167750,'39b1b09e3e0649239096e967c4410f78',3,0);
INSERT INTO "metrics" VALUES('loss',0.2,1795273167782,'39b1b09e3e0649239096e967c4410f78',4,0);
INSERT INTO "metrics" VALUES('loss',1.66666666666666657414e-01,1795273167806,'39b1b09e3e0649239096e967c4410f78',5,0);
INSERT INTO "metrics" VALUES('loss',1.42857142857142849212e-01,1795273167834,'39b1b09e3e0649239096e967c4410f78',6,0);
INSERT INTO "metrics" VALUES('loss',0.125,1795273167862,'39b1b09e3e0649239096e967c4410f78',7,0);
INSERT INTO "metrics" VALUES('loss',1.11111111111111104943e-01,1795273167880,'39b1b09e3e0649239096e967c4410f78',8,0);
INSERT INTO "metrics" VALUES('loss',0.1,1795273167902,'39b1b09e3e0649239096e967c4410f78',9,0);
INSERT INTO "metrics" VALUES('loss',9.09090909090909116141e-02,1795273167938,'39b1b09e3e0649239096e967c4410f78',10,0);
INSERT INTO "metrics" VALUES('loss',8.33333333333333287074e-02,1795273167966,'39b1b09e3e0649239096e967c4410f78',11,0);
INSERT INTO "metrics" VALUES('loss',7.6923076923076927347e-02,1795273167982,'39b1b09e3e0649239096e967c4410f78',12,0);
INSERT INTO "metrics" VALUES('loss',7.14285714285714246063e-02,1795273167998,'39b1b09e3e0649239096e967c4410f78',13,0);
INSERT INTO "metrics" VALUES('loss',6.66666666666666657414e-02,1795273168027,'39b1b09e3e0649239096e967c4410f78',14,0);
INSERT INTO "metrics" VALUES('loss',0.0625,1795273168058,'39b1b09e3e0649239096e967c4410f78',15,0);
INSERT INTO "metrics" VALUES('loss',5.8823529411764705066e-02,1795273168076,'39b1b09e3e0649239096e967c4410f78',16,0);
INSERT INTO "metrics" VALUES('loss',5.55555555555555524716e-02,1795273168093,'39b1b09e3e0649239096e967c4410f78',17,0);
INSERT INTO "metrics" VALUES('loss',5.26315789473684181309e-02,1795273168118,'39b1b09e3e0649239096e967c4410f78',18,0);
INSERT INTO "metrics" VALUES('loss',0.05,1795273168142,'39b1b09e3e0649239096e967c4410f78',19,0);
INSERT INTO "metrics" VALUES('twice',1.0,1795273168162,'39b1b09e3e0649239096e967c4410f78',3,0);
INSERT INTO "metrics" VALUES('twice',2.0,1795273168176,'39b1b09e3e0649239096e967c4410f78',3,0);
INSERT INTO "metrics" VALUES('nan',0.0,1795273168192,'39b1b09e3e0649239096e967c4410f78',0,1);
INSERT INTO "metrics" VALUES('inf',1.79769313486231562234e+308,1795273168203,'39b1b09e3e0649239096e967c4410f78',3,0);
INSERT INTO "metrics" VALUES('least',-1.0e+300,1795273168208,'39b1b09e3e0649239096e967c4410f78',-5,0);
INSERT INTO "metrics" VALUES('auc',0.5,1795273168281,'f5d17c8c2ab242899479d011a15ba730',0,0);
INSERT INTO "metrics" VALUES('auc',0.75,1795273168298,'f5d17c8c2ab242899479d011a15ba730',1,0);
INSERT INTO "metrics" VALUES('auc',0.25,1795273168414,'6681ad52cda44adeaf6fbce20bc4fd6b',0,0);
INSERT INTO "metrics" VALUES('auc',1.0,1795273168446,'9a8b05bb686445cb8f62a161d4d8b490',0,0);
CREATE TABLE "model_version_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value TEXT, 
	name VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT model_version_tag_pk PRIMARY KEY (workspace, "key", name, version), 
	CONSTRAINT fk_model_version_tags_model_versions FOREIGN KEY(workspace, name, version) REFERENCES model_versions (workspace, name, version) ON UPDATE CASCADE
);
INSERT INTO "model_version_tags" VALUES('ok','yes','credit',2,'default');
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
	run_link VARCHAR(500), 
	storage_location VARCHAR(500), 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT model_version_pk PRIMARY KEY (workspace, name, version), 
	CONSTRAINT fk_model_versions_registered_models FOREIGN KEY(workspace, name) REFERENCES registered_models (workspace, name) ON UPDATE CASCADE
);
INSERT INTO "model_versions" VALUES('credit',1,1795273168582,1795273168630,'one',NULL,'Production','./mlruns/1/55d6b7be5f09438fb4c15a81a634a234/artifacts/model','55d6b7be5f09438fb4c15a81a634a234','READY',NULL,NULL,'./mlruns/1/55d6b7be5f09438fb4c15a81a634a234/artifacts/model','default');
INSERT INTO "model_versions" VALUES('credit',2,1795273168591,1795273168591,'two',NULL,'None','./mlruns/1/55d6b7be5f09438fb4c15a81a634a234/artifacts/model','55d6b7be5f09438fb4c15a81a634a234','READY',NULL,NULL,'./mlruns/1/55d6b7be5f09438fb4c15a81a634a234/artifacts/model','default');
CREATE TABLE "params" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000) NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT param_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO "params" VALUES('lr','0.1','39b1b09e3e0649239096e967c4410f78');
INSERT INTO "params" VALUES('depth','7','39b1b09e3e0649239096e967c4410f78');
INSERT INTO "params" VALUES('text','a b
c','39b1b09e3e0649239096e967c4410f78');
CREATE TABLE "registered_model_aliases" (
	alias VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT registered_model_alias_pk PRIMARY KEY (workspace, name, alias), 
	CONSTRAINT fk_registered_model_aliases_registered_models FOREIGN KEY(workspace, name) REFERENCES registered_models (workspace, name) ON DELETE CASCADE ON UPDATE CASCADE
);
INSERT INTO "registered_model_aliases" VALUES('champion',1,'credit','default');
CREATE TABLE "registered_model_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(5000), 
	name VARCHAR(256) NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT registered_model_tag_pk PRIMARY KEY (workspace, "key", name), 
	CONSTRAINT fk_registered_model_tags_registered_models FOREIGN KEY(workspace, name) REFERENCES registered_models (workspace, name) ON UPDATE CASCADE
);
INSERT INTO "registered_model_tags" VALUES('k','v','credit','default');
CREATE TABLE "registered_models" (
	name VARCHAR(256) NOT NULL, 
	creation_time BIGINT, 
	last_updated_time BIGINT, 
	description VARCHAR(5000), 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT registered_model_pk PRIMARY KEY (workspace, name)
);
INSERT INTO "registered_models" VALUES('credit',1795273168572,1795273168630,'All credit','default');
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
	CONSTRAINT source_type CHECK (source_type IN ('NOTEBOOK', 'JOB', 'LOCAL', 'UNKNOWN', 'PROJECT')), 
	CONSTRAINT runs_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CHECK (status IN ('SCHEDULED', 'FAILED', 'FINISHED', 'RUNNING', 'KILLED'))
);
INSERT INTO "runs" VALUES('39b1b09e3e0649239096e967c4410f78','parent','UNKNOWN','','','root','FINISHED',1795273167620,1795273168350,'','active','./mlruns/1/39b1b09e3e0649239096e967c4410f78/artifacts',1,NULL);
INSERT INTO "runs" VALUES('f5d17c8c2ab242899479d011a15ba730','child','UNKNOWN','','','root','FINISHED',1795273168262,1795273168319,'','active','./mlruns/1/f5d17c8c2ab242899479d011a15ba730/artifacts',1,NULL);
INSERT INTO "runs" VALUES('c5af9749cf76475d9d9253786b92e54d','fails','UNKNOWN','','','root','FAILED',1795273168375,1795273168393,'','active','./mlruns/1/c5af9749cf76475d9d9253786b92e54d/artifacts',1,NULL);
INSERT INTO "runs" VALUES('6681ad52cda44adeaf6fbce20bc4fd6b','still running','UNKNOWN','','','unknown','RUNNING',1795273168403,NULL,'','active','./mlruns/1/6681ad52cda44adeaf6fbce20bc4fd6b/artifacts',1,NULL);
INSERT INTO "runs" VALUES('9a8b05bb686445cb8f62a161d4d8b490','gone','UNKNOWN','','','root','FINISHED',1795273168424,1795273168458,'','deleted','./mlruns/1/9a8b05bb686445cb8f62a161d4d8b490/artifacts',1,1795273168472);
INSERT INTO "runs" VALUES('55d6b7be5f09438fb4c15a81a634a234','reads','UNKNOWN','','','root','FINISHED',1795273168478,1795273168524,'','active','./mlruns/1/55d6b7be5f09438fb4c15a81a634a234/artifacts',1,NULL);
CREATE TABLE "tags" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000), 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT tag_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO "tags" VALUES('mlflow.user','root','39b1b09e3e0649239096e967c4410f78');
INSERT INTO "tags" VALUES('mlflow.source.name','make.py','39b1b09e3e0649239096e967c4410f78');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','39b1b09e3e0649239096e967c4410f78');
INSERT INTO "tags" VALUES('mlflow.note.content','the first','39b1b09e3e0649239096e967c4410f78');
INSERT INTO "tags" VALUES('mlflow.runName','parent','39b1b09e3e0649239096e967c4410f78');
INSERT INTO "tags" VALUES('team','risk','39b1b09e3e0649239096e967c4410f78');
INSERT INTO "tags" VALUES('mlflow.user','root','f5d17c8c2ab242899479d011a15ba730');
INSERT INTO "tags" VALUES('mlflow.source.name','make.py','f5d17c8c2ab242899479d011a15ba730');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','f5d17c8c2ab242899479d011a15ba730');
INSERT INTO "tags" VALUES('mlflow.parentRunId','39b1b09e3e0649239096e967c4410f78','f5d17c8c2ab242899479d011a15ba730');
INSERT INTO "tags" VALUES('mlflow.runName','child','f5d17c8c2ab242899479d011a15ba730');
INSERT INTO "tags" VALUES('mlflow.user','root','c5af9749cf76475d9d9253786b92e54d');
INSERT INTO "tags" VALUES('mlflow.source.name','make.py','c5af9749cf76475d9d9253786b92e54d');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','c5af9749cf76475d9d9253786b92e54d');
INSERT INTO "tags" VALUES('mlflow.runName','fails','c5af9749cf76475d9d9253786b92e54d');
INSERT INTO "tags" VALUES('mlflow.runName','still running','6681ad52cda44adeaf6fbce20bc4fd6b');
INSERT INTO "tags" VALUES('mlflow.user','root','9a8b05bb686445cb8f62a161d4d8b490');
INSERT INTO "tags" VALUES('mlflow.source.name','make.py','9a8b05bb686445cb8f62a161d4d8b490');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','9a8b05bb686445cb8f62a161d4d8b490');
INSERT INTO "tags" VALUES('mlflow.runName','gone','9a8b05bb686445cb8f62a161d4d8b490');
INSERT INTO "tags" VALUES('mlflow.user','root','55d6b7be5f09438fb4c15a81a634a234');
INSERT INTO "tags" VALUES('mlflow.source.name','make.py','55d6b7be5f09438fb4c15a81a634a234');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','55d6b7be5f09438fb4c15a81a634a234');
INSERT INTO "tags" VALUES('mlflow.runName','reads','55d6b7be5f09438fb4c15a81a634a234');
CREATE TABLE workspaces (
	name VARCHAR(63) NOT NULL, 
	description TEXT, 
	default_artifact_root TEXT, trace_archival_location TEXT, trace_archival_retention VARCHAR(32), 
	CONSTRAINT workspaces_pk PRIMARY KEY (name)
);
INSERT INTO "workspaces" VALUES('default','Default workspace for legacy resources',NULL,NULL,NULL);
